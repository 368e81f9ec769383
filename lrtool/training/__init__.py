"""What a training does around the loop: session, resume, divergence, initial rate."""
