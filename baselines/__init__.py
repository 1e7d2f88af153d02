"""Methods that ScaleCrafter is compared with, all under the contract of `baselines.method`."""
