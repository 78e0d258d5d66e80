"""Scores: predictions follow graded targets or a teacher."""
