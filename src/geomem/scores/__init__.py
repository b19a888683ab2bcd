"""Stage `scores`: videos become numbers."""
