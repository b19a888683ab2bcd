"""Sources of clips: embedded worlds that are rendered, and data sets that are downloaded."""
