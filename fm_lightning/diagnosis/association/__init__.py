"""How measurements of the same samples go together: each number with its interval, or the reason why there is none."""
