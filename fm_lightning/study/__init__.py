"""Many runs: replicates and what they say together; memorization over data, width and training time."""
