"""Results against a policy: passed, failed or inconclusive. Nothing here needs torch."""
