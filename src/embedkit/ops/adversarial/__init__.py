"""What adversarial training needs: a reversed gradient, schedules of strength and learning rate."""
