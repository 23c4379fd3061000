"""Everything that can be wrong, and how it is told from a line of output.

    kinds.py      THE table: one row for each id of contract §7, with stage, fix, and may another way help
    catalogue.py  a Finding (one thing that is wrong, here and now) and the report of several
    patterns.py   THE other table: what go, git, curl and ssh print -> id
    loglines.py   a line of a CI log -> the program's own line, and whose it is; what must not be shown
    reader.py     bytes as they come -> matches; cut lines, colours and endless lines are dealt with here
    particulars.py  what a match tells beside its id: module, host, hop, stage
    timeline.py   the requests of an `-x` log, by host and module
    story.py      a whole log -> findings, several failures under their cause; what `explain` prints

Doctor makes findings from checks, explain from a log, `child/classify` decides by matches whether a
command is worth repeating.  All three take their words from the one table, so they never disagree.

A line goes:  bytes -> Blocks (whole lines) -> keyword search (cheap, drops nearly all) -> patterns whose
keyword is in the line, in order -> Match -> a `server response:` line may refine it -> weak ones dropped.

Nothing here does I/O, and nothing here imports more than the ground floor.
"""
