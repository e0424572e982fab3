"""The command line: LightningCLI and the verbs."""
