"""Side by side with peers, in one run: ``make bench`` (CPU) and ``make bench-gpu``; each script also runs alone."""
