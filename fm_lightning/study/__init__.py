"""Many runs together: replicates and pooled effects."""
