"""Which few demonstrations to keep, and why: duplicates, leaks, quality, diversity, quotas."""
