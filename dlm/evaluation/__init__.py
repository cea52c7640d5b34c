"""What a trained model is worth: likelihoods, samples and their quality."""
