// Reads the parameters of one term of a policy spec, and writes its canonical text.
//
// Parameters are read in the order of the canonical text: each reading call appends key=value as
// resolved, so that the text has every default and reads back as itself. Thread-compatible; holds
// references to what it was made of. Cost: O(length of the value, or layers). Errors:
// kInvalidArgument naming key, value and bound.
#ifndef KVASIR_POLICIES_PARAMETER_READER_H_
#define KVASIR_POLICIES_PARAMETER_READER_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include <absl/status/statusor.h>

#include "policies/policy_definition.h"
#include "policies/policy_spec.h"
#include "policies/separator_set.h"

namespace kvasir {

inline constexpr uint64_t kRowsMax = uint64_t{1} << 31;  // rows of a sequence are 32-bit numbers
inline constexpr char kCountBounds[] = "1..2147483648";
inline constexpr char kCountFromZeroBounds[] = "0..2147483648";
inline constexpr uint64_t kKernelMax = 1023;
inline constexpr char kKernelBounds[] = "odd, 1..1023";

// Every parameter of `term` is one of `info`. what: "policy", "rule", "encoding".
absl::Status CheckParameters(const PolicyTerm& term, const PolicyInfo& info, std::string_view what);

class ParameterReader {
 public:
  // `rules`: what stands before the policy in the spec; null: nothing.
  ParameterReader(const PolicyTerm& term, const PolicyInfo& info, const PolicyContext& context,
                  std::shared_ptr<const StayRule> rules = nullptr)
      : term_(term), info_(info), context_(context), rules_(std::move(rules)) {}

  // As written, else the default of the definition.
  std::string_view Value(std::string_view key) const;
  bool Given(std::string_view key) const;

  // One number for each layer, in [min, kRowsMax].
  absl::StatusOr<std::vector<uint64_t>> PerLayer(std::string_view key, uint64_t min) {
    return PerLayerOf(key, Value(key), min);
  }
  absl::StatusOr<std::vector<uint64_t>> PerLayerOf(std::string_view key, std::string_view value,
                                                   uint64_t min);
  absl::StatusOr<uint64_t> Integer(std::string_view key, uint64_t min, uint64_t max) {
    return IntegerOf(key, Value(key), min, max);
  }
  absl::StatusOr<uint64_t> IntegerOf(std::string_view key, std::string_view value, uint64_t min,
                                     uint64_t max);
  // Odd and in [1, kKernelMax].
  absl::StatusOr<uint32_t> Kernel(std::string_view key);
  // Above 0, at most 1.
  absl::StatusOr<double> Fraction(std::string_view key);
  // 0.5 to 6 bits, as a whole number of 1/fraction bit.
  absl::StatusOr<uint32_t> Bits(std::string_view key, uint32_t fraction);
  absl::StatusOr<bool> Boolean(std::string_view key);
  absl::StatusOr<std::string> Choice(std::string_view key, std::string_view value,
                                     const std::vector<std::string>& known);
  absl::StatusOr<std::string> Choice(std::string_view key, const std::vector<std::string>& known) {
    return Choice(key, Value(key), known);
  }
  // `key` of the spec, else the model's; ids are needed.
  absl::StatusOr<SeparatorSet> Separators(std::string_view key);
  // original or unrotated, and in_cache where `in_cache` says so.
  absl::StatusOr<PositionMode> Positions(bool in_cache);

  // `key` has no meaning where `what` holds.
  absl::Status Refuse(std::string_view key, std::string_view what) const;

  const PolicyContext& context() const { return context_; }
  const std::shared_ptr<const StayRule>& rules() const { return rules_; }
  std::string Canonical() const;

 private:
  void Write(std::string_view key, std::string_view value);

  const PolicyTerm& term_;
  const PolicyInfo& info_;
  const PolicyContext& context_;
  std::shared_ptr<const StayRule> rules_;
  std::string text_;
};

// Settings of one layer, in the order of the columns.
using LayerSettings = std::vector<uint64_t>;
using LaneMaker = std::function<std::unique_ptr<RetentionPolicy>(const LayerSettings&)>;

// Groups layers with equal settings. columns[k][layer] is setting k of a layer.
PolicyLanes GroupLayers(const std::vector<LayerSettings>& columns, uint32_t layers,
                        const LaneMaker& make);

// The parameter "positions" of policies that keep rows where they are in the text.
PolicyParameterInfo PositionsParameter();

}  // namespace kvasir

#endif  // KVASIR_POLICIES_PARAMETER_READER_H_
