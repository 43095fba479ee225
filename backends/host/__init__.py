"""What a host says: settings, accounts, the key that signs."""
