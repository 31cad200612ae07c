"""Layer 4: estimates for absent hardware. Compiles the train step and reports memory, communication and a roofline."""
