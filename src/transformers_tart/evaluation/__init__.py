"""What TART is compared with on the same frozen model."""
