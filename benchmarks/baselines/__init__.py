"""What we measure ourselves against, written as it is usually written; nothing of the product's own is in it."""
