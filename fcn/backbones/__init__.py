"""Classification networks without their heads."""
