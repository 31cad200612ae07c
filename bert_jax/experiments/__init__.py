"""Layer 5: runs, jobs, sweeps, SLURM, tables of papers and run status."""
