"""From records to what a person sees: report, plot, terminal."""
