"""What the suite needs to run against a cluster: bring one up, install, disturb, measure."""
