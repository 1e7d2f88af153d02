"""In: run folders. Out: what is wrong with them, a line each, and on request the same folders without it. A command."""
