"""Stage `features`: clips become cached features of the frozen teacher."""
