"""Stage `clips`: scenes and sources become clip stores and plans."""
