"""Layer 5: runs, jobs, sweeps, repeats, SLURM, paper tables and status."""
