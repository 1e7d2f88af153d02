"""In: run folders. Out: what is wrong with them, and on request the same folders repaired. A command."""
