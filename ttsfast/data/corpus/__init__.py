"""From a folder of recordings and texts to items, with a reason for everything left out."""
