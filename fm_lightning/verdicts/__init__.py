"""When a schedule does more than a trivial manipulation: doses, residuals, margins, verdicts and their wording."""
