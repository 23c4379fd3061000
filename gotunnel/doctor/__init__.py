"""Why Go can't reach its modules: facts, checks that need no network, looks at what go needs, judgement."""
