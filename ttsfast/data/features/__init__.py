"""What is computed from a recording: log-mels by a contract, pitch, energy; and the way back."""
