"""Two streams become one.

copy   any two streams, at the level of their callbacks: no task, no wake-up for each piece
"""
