"""Stage `rollouts`: checkpoints become long videos."""
