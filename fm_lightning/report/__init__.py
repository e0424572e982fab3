"""What a comparison says: the table, the figures, the page. Reads saved results only; never imports torch."""
