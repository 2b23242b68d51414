"""What a reader must know beside each verdict, and why a claim is not run."""

NOTES = {
    "V1": "at one rate for all batches, and as many epochs, so that the large batch made fewer updates; Q6 has tuned rates",
    "V2": "judged with SAM as published, on every batch: it holds at each of CIFAR-10 and at the large one of MNIST, not at "
    "the small one; the report's inference mode stands beside it",
    "V3": "that sharpness drops 'in a few cases' is not tested",
    "V4": "asked of every batch of MNIST, where Adam was run: it holds at the two smaller ones and not at the large one; Adam "
    "has Keras' default rate and SGD a tuned one: with both tuned, and without SAM, Adam's accuracy is higher at either batch",
    "V5": "processor time of whole runs, evaluations included; 'about twice' is read as 1.5 to 2.5 times",
    "A1": "of the fifteen rows of Table 1 the four of Wide-ResNet alone can be run here",
    "A2": "'where standard training over-fits' is presupposed, and not asked where plain training does not: here it makes few "
    "updates and gains by more",
    "A3": "that m-sharpness with a small m predicts the gap better is not tested",
    "A5": "against plain training alone, at one level of noise; the other methods of Table 4 are not run",
    "A6": "better than plain training, which is more than a default has to be; at the large batch the radius is the one that a "
    "search took, so that A1 asks the same; that no other radius is better is not asked",
    "A8": "the rise is that of parts of 32 examples, at the radius and with the steps of training; by accuracy alone, before "
    "the rise was asked, the claim held",
}
REASONS = {"A7": "the second-order terms are not implemented, and p = ∞ would need a search of its own for its radius"}
