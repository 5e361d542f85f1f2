"""The way in and out: whisper files, CSV and carbon lines, to and from the store's chunk rows."""
