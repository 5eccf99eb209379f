// The parameters of return-hazard, with their bounds. Plain values; thread-safe.
#ifndef KVASIR_EVICTION_RETURN_HAZARD_OPTIONS_H_
#define KVASIR_EVICTION_RETURN_HAZARD_OPTIONS_H_

#include <cstdint>
#include <span>
#include <string_view>

#include <absl/status/status.h>

namespace kvasir::eviction {

struct ReturnHazardOptions {
  double ghost_factor = 8;     // ghosts for each block of capacity; matters most in small caches
  double old_quantile = 0.98;  // returns later than those of this share go by idle time alone
  double old_bonus = 1;        // how far a score moves a tail among the old ones
  double trunk_kids = 8;       // children from which a block counts as a shared trunk
  double hazard_prior = 0.10;  // chance of a return in an age bucket before anything is learned
  double prior_weight = 5;     // tails that the prior counts as
  double kappa = 5;            // evidence that halves a feature's first step
  double evidence_max = 2000;  // a feature never learns slower than with this much
  double decay = 0.999;        // of the age histogram, at each relearning
  double relearn_every = 50;   // sequences
  double block_tokens = 512;   // of a full block; new blocks count in units of 512 tokens
};

struct ReturnHazardParameter {
  std::string_view name;
  double ReturnHazardOptions::*value;
  double min = 0;
  double max = 0;
  bool whole = false;  // a whole number
};

// Every parameter, in the order of the struct.
std::span<const ReturnHazardParameter> ReturnHazardParameters();

// Sets one by name. Errors: kInvalidArgument naming parameter, value and bounds, or the known ones.
absl::Status SetParameter(std::string_view name, double value, ReturnHazardOptions& options);

// Errors: kInvalidArgument naming the first parameter out of bounds.
absl::Status CheckOptions(const ReturnHazardOptions& options);

}  // namespace kvasir::eviction

#endif  // KVASIR_EVICTION_RETURN_HAZARD_OPTIONS_H_
