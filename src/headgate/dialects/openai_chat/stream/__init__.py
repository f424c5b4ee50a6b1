"""Chat streams: chunks in, chunks out, the verdict; how one attempt joins another."""
