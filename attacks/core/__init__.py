"""What crafting methods are made of."""
