"""Methods that ScaleCrafter is compared with, all under the contract of `scalecrafter.method`."""
