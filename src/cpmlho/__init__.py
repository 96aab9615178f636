"""CPMLHO: hyperparameters of a neural network tuned while it trains, and a replication of the paper that proposed it.

`core` holds the methods, in torch alone; `study` the replication, whose data flow one way: protocol -> data -> runs ->
result files -> report, with `tracking` a view of the files.

Symbols, as in the paper where it has them:
    B          examples in a batch
    n          number of hyperparameters
    raw        lambda, the unconstrained hyperparameters (n,); value = low + (high - low) sigmoid(lambda)
    d          displacement of lambda, (B, n), one row an example
    epsilon    perturbation of lambda, normal with standard deviation sigma = softplus(spread)
    W, b       general weight (w_e) and bias of a layer
    R, r       response weight (w_h2) and response bias
    H          hyperparameter map (w_h1), (2 out, n): H_w scales R's rows, H_b scales r
    w_h        (H_w lambda) R, row by row
    g, phi, mu distance |w_e - w_h|, a cutting plane, its multiplier
    theta      weight of the validation loss in the mixed-level objective

R1, R2, ... number the readings of what the paper leaves open; docs/readings.md lists them.
"""
