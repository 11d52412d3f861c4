"""What is true of jobs and attempts: pure functions and frozen data, no input or output, no clock, no random."""
