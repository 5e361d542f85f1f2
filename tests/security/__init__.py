"""What hostile senders and clients do, and how it ends; SECURITY.md names these tests."""
