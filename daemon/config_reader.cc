#include "daemon/config_reader.h"

#include <algorithm>
#include <charconv>
#include <optional>
#include <set>
#include <type_traits>
#include <utility>

#include "base/error.h"
#include "daemon/config_defaults.h"
#include "daemon/config_forms.h"
#include "daemon/config_schema.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <toml++/toml.h>

namespace kvasir {
namespace {

constexpr size_t kIdsMax = 1024;       // in one list
constexpr size_t kShownBytesMax = 80;  // of a value in an error

bool HasControlBytes(std::string_view text) {
  return std::any_of(text.begin(), text.end(), [](char c) {
    const auto byte = static_cast<unsigned char>(c);
    return byte < 0x20 || byte == 0x7f;
  });
}

// What the file says, for an error: short and safe to print.
std::string Shown(const toml::node& node) {
  if (const auto* text = node.as_string()) {
    std::string out;
    for (const char c : text->get().substr(0, kShownBytesMax)) {
      const auto byte = static_cast<unsigned char>(c);
      if (byte < 0x20 || byte == 0x7f) {
        out += fmt::format("\\x{:02x}", byte);
      } else {
        out += c;
      }
    }
    return fmt::format("\"{}{}\"", out, text->get().size() > kShownBytesMax ? "..." : "");
  }
  if (const auto* number = node.as_integer()) return fmt::format("{}", number->get());
  if (const auto* flag = node.as_boolean()) return flag->get() ? "true" : "false";
  if (const auto* number = node.as_floating_point()) return fmt::format("{}", number->get());
  return node.is_table() ? "a table" : node.is_array() ? "an array" : "a date or time";
}

uint32_t LineOf(const toml::source_region& source) { return source.begin.line; }

// Reads one file into a Config. Each Read function adds a finding where it returns false or
// nothing.
class Reader {
 public:
  Reader(ConfigFindings* findings, const PolicyChecks& checks)
      : findings_(*findings), checks_(checks) {}

  void Read(const toml::table& root) {
    if (const toml::node* const gpus = root.get("gpu")) ReadGpus(*gpus);  // tenants name them
    for (const auto& [key, node] : root) {
      if (key.str() == "tenant") {
        ReadTenants(node);
      } else if (key.str() != "gpu") {
        ReadTable(std::string(key.str()), LineOf(key.source()), node);
      }
    }
    FillConfigDefaults(lines_, &config_);
  }

  const Config& config() const { return config_; }
  const ConfigLines& lines() const { return lines_; }

 private:
  static std::string KnownKeys(std::string_view table) {
    std::vector<std::string_view> names;
    for (const ConfigKey& key : ConfigSchema()) {
      if (key.table == table) names.push_back(key.name);
    }
    return fmt::format("{}", fmt::join(names, ","));
  }

  void ReadTable(const std::string& table, uint32_t line, const toml::node& node) {
    const std::string known = KnownKeys(table);
    if (known.empty()) {
      findings_.Add(line,
                    fmt::format("unknown {}: key={} "
                                "known=server,memory,limits,retention,prefix,tier,admin,gpu,tenant",
                                node.is_table() ? "table" : "key", table));
    } else if (!node.is_table()) {
      findings_.Add(
          line, fmt::format("wrong type: key={} given={} expected=a table", table, Shown(node)));
    } else {
      ConfigEntry unused;
      ReadKeys(table, table + ".", *node.as_table(), &unused);
    }
  }

  // Calls `read(prefix of its keys, the entry)` for each entry of an array of tables, which all
  // have a name.
  template <typename ReadOne>
  void ReadEntries(const std::string& table, const std::string& path, size_t max,
                   const toml::node& node, const ReadOne& read) {
    const uint32_t line = LineOf(node.source());
    const toml::array* list = node.as_array();
    if (list == nullptr || !(list->empty() || list->is_homogeneous(toml::node_type::table))) {
      findings_.Add(line, fmt::format("wrong type: key={} given={} expected=[[{}]] tables", path,
                                      Shown(node), table));
      return;
    }
    if (list->size() > max) {
      findings_.Add(line, fmt::format("too many {}s: key={} given={} max={}", table, path,
                                      list->size(), max));
      return;
    }
    size_t at = 0;
    for (const toml::node& entry : *list) {
      const std::string prefix = fmt::format("{}[{}].", path, at++);
      read(prefix, *entry.as_table());
      if (!entry.as_table()->contains("name")) {
        findings_.Add(LineOf(entry.source()), fmt::format("missing key: key={}name", prefix));
      }
    }
  }

  void ReadTenants(const toml::node& node) {
    ReadEntries("tenant", "tenant", kConfigTenantsMax, node,
                [&](const std::string& prefix, const toml::table& table) {
                  ConfigEntry entry;
                  ReadKeys("tenant", prefix, table, &entry);
                  config_.tenants.push_back(std::move(entry.tenant));
                });
  }

  void ReadGpus(const toml::node& node) {
    ReadEntries("gpu", "gpu", kConfigGpusMax, node,
                [&](const std::string& prefix, const toml::table& table) {
                  ConfigEntry entry;
                  ReadKeys("gpu", prefix, table, &entry);
                  if (!table.contains("device")) {
                    findings_.Add(LineOf(table.source()),
                                  fmt::format("missing key: key={}device", prefix));
                  }
                  config_.gpus.push_back(std::move(entry.gpu));
                });
  }

  // Its lines are found by the pool's name: "tenant[0].gpu.gpu0.weight".
  void ReadTenantGpus(const std::string& path, const toml::node& node, Config::Tenant* tenant) {
    ReadEntries("tenant.gpu", path, kConfigGpusMax, node,
                [&](const std::string& prefix, const toml::table& table) {
                  ConfigEntry entry;
                  ReadKeys("tenant.gpu", prefix, table, &entry);
                  const std::string& name = entry.tenant_gpu.name;
                  const auto is_it = [&name](const auto& one) { return one.name == name; };
                  const auto gpu = std::find_if(config_.gpus.begin(), config_.gpus.end(), is_it);
                  const bool twice = std::any_of(tenant->gpus.begin(), tenant->gpus.end(), is_it);
                  if (!name.empty() && (gpu == config_.gpus.end() || twice)) {
                    findings_.Add(lines_[prefix + "name"],
                                  fmt::format("{}: key={}name given=\"{}\" bound=the name of a "
                                              "[[gpu]], once",
                                              twice ? "gpu twice" : "unknown gpu", prefix, name));
                    return;
                  }
                  if (gpu == config_.gpus.end()) return;
                  if (!table.contains("limit_bytes"))
                    entry.tenant_gpu.limit_bytes = gpu->pool_bytes;
                  for (const auto& [key, unused] : table) {
                    lines_[fmt::format("{}.{}.{}", path, name, key.str())] =
                        lines_[prefix + std::string(key.str())];
                  }
                  tenant->gpus.push_back(std::move(entry.tenant_gpu));
                });
  }

  void ReadKeys(const std::string& table, const std::string& prefix, const toml::table& from,
                ConfigEntry* entry) {
    for (const auto& [name, node] : from) {
      const std::string path = prefix + std::string(name.str());
      const uint32_t line = LineOf(name.source());
      if (table == "tenant" && name.str() == "gpu") {
        ReadTenantGpus(path, node, &entry->tenant);
        continue;
      }
      const ConfigKey* key = FindConfigKey(table, name.str());
      if (key == nullptr) {
        findings_.Add(line, fmt::format("unknown key: key={} known={}", path, KnownKeys(table)));
        continue;
      }
      lines_[path] = line;
      ReadValue(Place{*key, path, line}, node, key->value(config_, *entry));
    }
  }

  struct Place {
    const ConfigKey& key;
    const std::string& path;
    uint32_t line;
  };

  void Refuse(const Place& place, std::string_view text, const toml::node& node,
              std::string_view bound) {
    findings_.Add(place.line,
                  fmt::format("{}: key={} given={} {}", text, place.path, Shown(node), bound));
  }

  void ReadValue(const Place& place, const toml::node& node, const ConfigValue& value) {
    switch (place.key.kind) {
      case ConfigKind::kInteger:
      case ConfigKind::kBytes:
      case ConfigKind::kFileMode:
        return ReadNumber(place, node, value);
      case ConfigKind::kBoolean:
        if (const auto* flag = node.as_boolean()) {
          *std::get<bool*>(value) = flag->get();
        } else {
          Refuse(place, "wrong type", node, "expected=true or false");
        }
        return;
      case ConfigKind::kIds:
        return ReadIds(place, node, std::get<std::vector<uint32_t>*>(value));
      case ConfigKind::kLadder:
      case ConfigKind::kCgroups:
        return ReadTexts(place, node, std::get<std::vector<std::string>*>(value));
      default:
        return ReadString(place, node, value);
    }
  }

  // The number that `node` stands for, or nothing if it has the wrong form for the key.
  std::optional<int64_t> NumberOf(const Place& place, const toml::node& node) {
    const auto* integer = node.as_integer();
    const auto* text = node.as_string();
    switch (place.key.kind) {
      case ConfigKind::kBytes:
        if (integer != nullptr) return integer->get();
        if (text != nullptr) {
          if (const auto bytes = ParseByteSize(text->get())) return static_cast<int64_t>(*bytes);
          Refuse(place, "not a size", node,
                 "expected=whole bytes or text such as \"512MiB\" units=B,KiB,MiB,GiB,TiB");
          return std::nullopt;
        }
        Refuse(place, "wrong type", node, "expected=an integer or text such as \"512MiB\"");
        return std::nullopt;
      case ConfigKind::kFileMode: {
        int64_t mode = 0;
        const std::string digits = text != nullptr ? text->get() : "";
        const auto [end, error] =
            std::from_chars(digits.data(), digits.data() + digits.size(), mode, 8);
        if (error == std::errc() && end == digits.data() + digits.size()) return mode;
        Refuse(place, "not a file mode", node, "expected=octal digits as text, such as \"0660\"");
        return std::nullopt;
      }
      default:
        if (integer != nullptr) return integer->get();
        Refuse(place, "wrong type", node, "expected=an integer");
        return std::nullopt;
    }
  }

  void ReadNumber(const Place& place, const toml::node& node, const ConfigValue& value) {
    const std::optional<int64_t> number = NumberOf(place, node);
    if (!number.has_value()) return;
    const ConfigKey& key = place.key;
    if (*number < key.min || *number > key.max) {
      const std::string bound =
          key.kind == ConfigKind::kFileMode
              ? fmt::format("min={:04o} max={:04o}", key.min, key.max)
              : fmt::format("min={} max={} unit={}", key.min, key.max, key.unit);
      return Refuse(place, "out of bounds", node, bound);
    }
    if (*number % key.multiple_of != 0) {
      return Refuse(place, "not a multiple", node,
                    fmt::format("multiple_of={} unit={}", key.multiple_of, key.unit));
    }
    std::visit(
        [&number](auto* field) {
          using Field = std::remove_pointer_t<decltype(field)>;
          if constexpr (std::is_integral_v<Field>) *field = static_cast<Field>(*number);
        },
        value);
  }

  void ReadIds(const Place& place, const toml::node& node, std::vector<uint32_t>* ids) {
    const auto* list = node.as_array();
    if (list == nullptr) return Refuse(place, "wrong type", node, "expected=an array of integers");
    if (list->size() > kIdsMax) return RefuseCount(place, place.key.unit, list->size(), kIdsMax);
    std::set<int64_t> seen;
    for (const toml::node& entry : *list) {
      const auto* id = entry.as_integer();
      if (id == nullptr) {
        Refuse(place, "wrong type", entry, "expected=an integer");
      } else if (id->get() < place.key.min || id->get() > place.key.max) {
        Refuse(place, "out of bounds", entry,
               fmt::format("min={} max={}", place.key.min, place.key.max));
      } else if (!seen.insert(id->get()).second) {
        Refuse(place, fmt::format("{} twice in one list", place.key.unit), entry, "bound=unique");
      } else {
        ids->push_back(static_cast<uint32_t>(id->get()));
      }
    }
  }

  void RefuseCount(const Place& place, std::string_view what, size_t given, size_t max) {
    findings_.Add(place.line, fmt::format("too many {}s: key={} given={} max={}", what, place.path,
                                          given, max));
  }

  // Ladders and cgroups.
  void ReadTexts(const Place& place, const toml::node& node, std::vector<std::string>* texts) {
    const bool ladder = place.key.kind == ConfigKind::kLadder;
    const size_t max = ladder ? kConfigRungsMax : kConfigCgroupsMax;
    const auto* list = node.as_array();
    if (list == nullptr) return Refuse(place, "wrong type", node, "expected=an array of text");
    const char* const what = ladder ? "rung" : "cgroup";
    if (list->size() > max) return RefuseCount(place, what, list->size(), max);
    std::vector<std::string> read;
    for (const toml::node& entry : *list) {
      read.emplace_back();
      const std::string path = fmt::format("{}[{}]", place.path, read.size() - 1);
      const size_t before = findings_.size();
      ReadString(Place{place.key, path, place.line}, entry, ConfigValue(&read.back()));
      if (findings_.size() > before) return;
    }
    const absl::Status status = ladder && checks_.ladder ? checks_.ladder(read) : absl::OkStatus();
    if (!status.ok()) return Refuse(place, "bad ladder", node, "reason=" + MessageOf(status));
    *texts = std::move(read);
  }

  void ReadString(const Place& place, const toml::node& node, const ConfigValue& value) {
    const auto* text = node.as_string();
    if (text == nullptr) return Refuse(place, "wrong type", node, "expected=text");
    const std::string& given = text->get();
    if (place.key.kind == ConfigKind::kChoice) return ReadChoice(place, node, given, value);
    const auto length = static_cast<int64_t>(given.size());
    if (length < place.key.min || length > place.key.max) {
      return Refuse(place, "length out of bounds", node,
                    fmt::format("length={} min={} max={}", length, place.key.min, place.key.max));
    }
    if (HasControlBytes(given)) return Refuse(place, "control byte", node, "bound=printable text");
    if (const auto problem = FormProblem(place.key.kind, given, checks_)) {
      return Refuse(place, problem->first, node, problem->second);
    }
    *std::get<std::string*>(value) = given;
  }

  void ReadChoice(const Place& place, const toml::node& node, const std::string& given,
                  const ConfigValue& value) {
    const auto& choices = place.key.choices;
    const auto at = std::find(choices.begin(), choices.end(), given);
    if (at == choices.end()) {
      return Refuse(place, "unknown word", node, fmt::format("known={}", fmt::join(choices, ",")));
    }
    std::visit(
        [&](auto* field) {
          using Field = std::remove_pointer_t<decltype(field)>;
          if constexpr (std::is_enum_v<Field>) *field = static_cast<Field>(at - choices.begin());
          if constexpr (std::is_same_v<Field, std::string>) *field = given;
        },
        value);
  }

  ConfigFindings& findings_;
  const PolicyChecks& checks_;
  Config config_;
  ConfigLines lines_;
};

}  // namespace

Config ReadConfigText(std::string_view text, const std::string& file_name,
                      const PolicyChecks& checks, ConfigLines* lines, ConfigFindings* findings) {
  toml::table root;
  try {
    root = toml::parse(text, file_name);
  } catch (const toml::parse_error& error) {
    findings->Add(LineOf(error.source()), fmt::format("not TOML: {}", error.description()));
    return {};
  } catch (const std::exception& error) {
    findings->Add(0, fmt::format("not TOML: {}", error.what()));
    return {};
  }
  Reader reader(findings, checks);
  reader.Read(root);
  *lines = reader.lines();
  return reader.config();
}

}  // namespace kvasir
