"""Stage: the best of several variants by their scores."""
