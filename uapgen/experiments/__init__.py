"""What experiments are made of: plans, records, jobs and figures."""
