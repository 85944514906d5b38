"""Running Python processes side by side; knows nothing of picking."""
