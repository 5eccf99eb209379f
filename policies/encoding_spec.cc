#include "policies/encoding_spec.h"

#include <string_view>

#include "base/error.h"
#include "base/status_macros.h"
#include "policies/parameter_reader.h"

#include <fmt/format.h>

namespace kvasir {
namespace {

using kernels::Codec;

struct CodecName {
  const char* name;
  Codec codec;
  uint32_t rows;  // of a record; 0: as the parameter says
  const char* summary;
  const char* source;
  uint32_t row_bits = 0;  // of a code of single rows, which is for V alone
};

constexpr CodecName kCodecs[] = {
    {"as_written", Codec::kAsWritten, 0, "as the engine wrote them", ""},
    {"int8", Codec::kInt8, 0, "8 bits: K by channel over a record's rows, V by row and group",
     "KIVI, arXiv 2402.02750"},
    {"int4", Codec::kInt4, 0, "4 bits: K by channel over a record's rows, V by row and group",
     "KIVI, arXiv 2402.02750"},
    {"tm64", Codec::kTokenMixed, 64,
     "token-mixed: 64 rows mixed by a Hadamard transform, bits where they count", ""},
    {"tm32", Codec::kTokenMixed, 32, "token-mixed, 32 rows a record", ""},
    {"rot3", Codec::kAsWritten, 0,
     "V alone, row by row: turned by a Hadamard transform, 3 bits and a norm; for policies that "
     "decide again and again",
     "", 3},
    {"rot2", Codec::kAsWritten, 0, "the same with 2 bits", "", 2},
};

constexpr char kBitBounds[] = "0.5..6";

std::vector<PolicyParameterInfo> CommonParameters() {
  return {{"rows", "choice", "64", "32, 64", "rows of a record; tm64 and tm32 say it by their name",
           false},
          {"n_sink", "integer", "4", kCountFromZeroBounds,
           "first rows, which stay as written; not for windows, which say it themselves", false},
          {"recent", "integer", "", kCountFromZeroBounds,
           "newest rows that stay as written; default: half of a record; not where kept rows are "
           "encoded",
           false}};
}

PolicyInfo InfoOf(const CodecName& codec) {
  PolicyInfo info{.name = codec.name,
                  .summary = codec.summary,
                  .source = codec.source,
                  .parameters = {},
                  .needs = "",
                  .shareable = true,
                  .accepts_rules = false};
  if (codec.row_bits > 0) info.needs = "attention over coded values";
  if (codec.codec == Codec::kAsWritten) return info;
  info.parameters = CommonParameters();
  info.needs = "attention over records; rotated keys";
  if (codec.codec == Codec::kTokenMixed) {
    info.parameters.push_back({"k_bits", "real", "3.25", kBitBounds,
                               "code bits of an element of K, the mean over the layers", false});
    info.parameters.push_back({"v_bits", "real", "2.75", kBitBounds,
                               "code bits of an element of V, the mean over the layers", false});
    info.parameters.push_back(
        {"profile", "choice", "on", "on, off, digest",
         "on: query weights and rates of the model's profile, where the daemon has one; a digest: "
         "of that one and no other",
         false});
  }
  return info;
}

absl::StatusOr<const CodecName*> FindCodec(std::string_view name, const std::string& dtype) {
  std::string known;
  for (const CodecName& codec : kCodecs) {
    const bool plain = &codec == kCodecs && !dtype.empty();  // named by its type as well
    if (codec.name == name || (plain && name == dtype)) return &codec;
    known += (known.empty() ? "" : ",") + std::string(codec.name);
    if (plain) known += "," + dtype;
  }
  return InvalidArgument("unknown encoding: encoding={} known={}", name, known);
}

// Parameters of either codec.
PolicyInfo InfoOf(const CodecName& k, const CodecName& v) {
  PolicyInfo info = InfoOf(k.codec == Codec::kTokenMixed || v.codec == Codec::kAsWritten ? k : v);
  info.name = k.name == v.name ? k.name : fmt::format("{}/{}", k.name, v.name);
  return info;
}

// What `key` says about `codec`: 0 where it has no bits to choose.
absl::StatusOr<uint32_t> ReadBits(ParameterReader& reader, std::string_view key,
                                  const CodecName& codec) {
  if (codec.codec == Codec::kTokenMixed) return reader.Bits(key, kBitFraction);
  KVASIR_RETURN_IF_ERROR(reader.Refuse(key, codec.name));
  return 0;
}

absl::StatusOr<uint32_t> ReadRows(ParameterReader& reader, const CodecName& k, const CodecName& v) {
  if (k.rows != 0 && v.rows != 0 && k.rows != v.rows) {
    return InvalidArgument("K and V must have records of as many rows: k={} v={}", k.name, v.name);
  }
  const uint32_t named = k.rows != 0 ? k.rows : v.rows;
  if (named != 0) {
    KVASIR_RETURN_IF_ERROR(reader.Refuse("rows", "tm64 and tm32, which say it by their name"));
    return named;
  }
  KVASIR_RETURN_IF_ERROR(reader.Choice("rows", {"32", "64"}).status());
  return reader.Value("rows") == "64" ? 64 : 32;
}

// Which rows stay as written.
absl::Status ReadPlaces(ParameterReader& reader, const Encodable& encodable, EncodingSpec& spec) {
  const bool kept = encodable.rows == EncodableRows::kKept;
  if (kept || encodable.KeepsAll()) {
    KVASIR_ASSIGN_OR_RETURN(spec.n_sink, reader.Integer("n_sink", 0, kRowsMax));
  } else {
    KVASIR_RETURN_IF_ERROR(reader.Refuse("n_sink", "windows, whose own first rows are exact"));
  }
  if (kept) return reader.Refuse("recent", "policies whose kept rows are encoded");
  const std::string half = fmt::format("{}", spec.rows / 2);
  KVASIR_ASSIGN_OR_RETURN(
      spec.recent,
      reader.IntegerOf("recent", reader.Given("recent") ? reader.Value("recent") : half, 0,
                       kRowsMax));
  return absl::OkStatus();
}

// V of single rows, K as written.
absl::StatusOr<EncodingSpec> RowSpec(const CodecName& k, const CodecName& v) {
  if (&k != kCodecs || v.row_bits == 0) {
    const CodecName& row = v.row_bits > 0 ? v : k;
    return InvalidArgument(
        "codes of single rows are for V, beside K as written: k={} v={} known=as_written/{}",
        k.name, v.name, row.name);
  }
  EncodingSpec spec;
  spec.v_row_bits = v.row_bits;
  return spec;
}

bool IsDigest(std::string_view text) {
  return text.size() == 8 && text.find_first_not_of("0123456789abcdef") == std::string_view::npos;
}

// Whether a profile is used; the canonical text says which.
absl::StatusOr<bool> ReadProfile(ParameterReader& reader, const PolicyContext& context) {
  std::string value(reader.Value("profile"));
  if (value == "on" && context.profile) value = context.profile->empty() ? "off" : *context.profile;
  if (IsDigest(value) && context.profile && value != *context.profile) {
    return InvalidArgument("the model has no such profile: profile={} known={}", value,
                           context.profile->empty() ? "off" : *context.profile);
  }
  const std::string digest = IsDigest(value) ? value : "digest";
  KVASIR_RETURN_IF_ERROR(reader.Choice("profile", value, {"on", "off", digest}).status());
  return value != "off";
}

}  // namespace

const std::vector<PolicyInfo>& Encodings() {
  static const auto* infos = [] {
    auto* list = new std::vector<PolicyInfo>;
    for (const CodecName& codec : kCodecs) list->push_back(InfoOf(codec));
    return list;
  }();
  return *infos;
}

absl::StatusOr<std::optional<EncodingSpec>> MakeEncoding(const PolicyTerm& term,
                                                         const PolicyContext& context,
                                                         const Encodable& encodable,
                                                         std::string* canonical) {
  const std::string_view name = term.name;
  const size_t slash = name.find('/');
  KVASIR_ASSIGN_OR_RETURN(const CodecName* k, FindCodec(name.substr(0, slash), context.dtype));
  const CodecName* v = k;
  if (slash != std::string_view::npos) {
    KVASIR_ASSIGN_OR_RETURN(v, FindCodec(name.substr(slash + 1), context.dtype));
  }
  const PolicyInfo info = InfoOf(*k, *v);
  KVASIR_RETURN_IF_ERROR(CheckParameters(term, info, "encoding"));
  if (k->row_bits > 0 || v->row_bits > 0) {
    *canonical = info.name;
    return RowSpec(*k, *v);
  }
  if (k->codec == Codec::kAsWritten && v->codec == Codec::kAsWritten) return std::nullopt;
  const PolicyTerm named{info.name, term.parameters};
  ParameterReader reader(named, info, context);
  EncodingSpec spec{.k = k->codec, .v = v->codec};
  KVASIR_ASSIGN_OR_RETURN(spec.k_bits, ReadBits(reader, "k_bits", *k));
  KVASIR_ASSIGN_OR_RETURN(spec.v_bits, ReadBits(reader, "v_bits", *v));
  KVASIR_ASSIGN_OR_RETURN(spec.rows, ReadRows(reader, *k, *v));
  KVASIR_RETURN_IF_ERROR(ReadPlaces(reader, encodable, spec));
  if (k->codec == Codec::kTokenMixed || v->codec == Codec::kTokenMixed) {
    KVASIR_ASSIGN_OR_RETURN(spec.profile, ReadProfile(reader, context));
  }
  *canonical = reader.Canonical();
  return spec;
}

}  // namespace kvasir
