"""What the system does, one thing a file; each flow reads and writes through the storage door."""
