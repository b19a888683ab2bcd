"""Stage `training`: plans and features become checkpoints."""
