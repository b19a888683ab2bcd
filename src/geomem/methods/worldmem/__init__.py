"""WorldMem: frames retrieved by views and time, read by cross-attention."""
