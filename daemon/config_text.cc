// Configuration as text: byte sizes, single values, the effective file, the sample file, the
// reference.
#include <type_traits>

#include "daemon/config_schema.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

namespace kvasir {
namespace {

constexpr size_t kCommentColumns = 96;

std::string TomlString(std::string_view text) {
  std::string out = "\"";
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (c == '"' || c == '\\') {
      out += '\\';
      out += c;
    } else if (byte < 0x20 || byte == 0x7f) {
      out += fmt::format("\\u{:04x}", byte);
    } else {
      out += c;
    }
  }
  return out + '"';
}

// Wraps at spaces; each line begins with "# ".
std::string Comment(std::string_view text) {
  std::string out;
  while (!text.empty()) {
    size_t end = text.size();
    if (end > kCommentColumns) end = text.rfind(' ', kCommentColumns);
    if (end == std::string_view::npos) end = text.size();
    out += fmt::format("# {}\n", text.substr(0, end));
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return out;
}

std::string Bounds(const ConfigKey& key) {
  switch (key.kind) {
    case ConfigKind::kBytes:
      return fmt::format("{} to {}", FormatByteSize(static_cast<uint64_t>(key.min)),
                         FormatByteSize(static_cast<uint64_t>(key.max)));
    case ConfigKind::kInteger:
    case ConfigKind::kIds:
      return fmt::format("{} to {}", key.min, key.max);
    case ConfigKind::kLadder:
      return fmt::format("each {} to {} characters, at most {}", key.min, key.max, kConfigRungsMax);
    case ConfigKind::kCgroups:
      return fmt::format("each {} to {} characters, at most {}", key.min, key.max,
                         kConfigCgroupsMax);
    case ConfigKind::kFileMode:
      return fmt::format("{:04o} to {:04o}", key.min, key.max);
    case ConfigKind::kChoice:
      return fmt::format("one of {}", fmt::join(key.choices, ", "));
    case ConfigKind::kBoolean:
      return "true or false";
    default:
      return fmt::format("{} to {} characters", key.min, key.max);
  }
}

std::string Default(const ConfigKey& key) {
  if (!key.default_note.empty()) return std::string(key.default_note);
  Config config;
  ConfigEntry entry;
  return FormatConfigValue(key, key.value(config, entry));
}

std::string KeyComment(const ConfigKey& key) {
  std::string facts = Bounds(key);
  if (!key.unit.empty()) facts = fmt::format("{}; {}", key.unit, facts);
  if (key.multiple_of > 1) facts += fmt::format(", a multiple of {}", key.multiple_of);
  facts += fmt::format("; default {}", Default(key));
  if (!key.needs_restart) facts += "; takes effect without a restart";
  return fmt::format("{}{}", Comment(key.description), Comment(fmt::format("({})", facts)));
}

// One entry of an array of tables, each line behind `mark`.
std::string EntryAsToml(std::string_view table, std::string_view mark, ConfigEntry entry) {
  Config unused;
  std::string out = fmt::format("{}[[{}]]\n", mark, table);
  for (const ConfigKey& key : ConfigSchema()) {
    if (key.table != table) continue;
    out += fmt::format("{}{} = {}\n", mark, key.name,
                       FormatConfigValue(key, key.value(unused, entry)));
  }
  return out;
}

// Its keys and what they mean, as comments.
std::string KeysAsSample(std::string_view table) {
  std::string out;
  for (const ConfigKey& key : ConfigSchema()) {
    if (key.table == table) out += fmt::format("#\n# {}:\n{}", key.name, KeyComment(key));
  }
  return out;
}

std::string TablesAsToml(Config config, bool comments) {
  std::string out;
  std::string_view table;
  ConfigEntry unused;
  for (const ConfigKey& key : ConfigSchema()) {
    if (IsConfigArray(key.table)) continue;
    if (key.table != table) {
      table = key.table;
      out += fmt::format("{}[{}]\n", out.empty() ? "" : "\n", table);
    }
    if (comments) out += "\n" + KeyComment(key);
    const ConfigValue value = key.value(config, unused);
    if (comments && !key.sample.empty()) {
      out += Comment(key.sample_note);
      *std::get<std::string*>(value) = key.sample;
    }
    out += fmt::format("{} = {}\n", key.name, FormatConfigValue(key, value));
  }
  return out;
}

}  // namespace

std::string FormatConfigValue(const ConfigKey& key, const ConfigValue& value) {
  return std::visit(
      [&key](auto* field) -> std::string {
        using Field = std::remove_pointer_t<decltype(field)>;
        if constexpr (std::is_enum_v<Field>) {
          return TomlString(key.choices[static_cast<size_t>(*field)]);
        } else if constexpr (std::is_same_v<Field, std::string>) {
          return TomlString(*field);
        } else if constexpr (std::is_same_v<Field, bool>) {
          return *field ? "true" : "false";
        } else if constexpr (std::is_same_v<Field, std::vector<std::string>>) {
          std::vector<std::string> texts;
          for (const std::string& text : *field) texts.push_back(TomlString(text));
          return fmt::format("[{}]", fmt::join(texts, ", "));
        } else if constexpr (std::is_same_v<Field, std::vector<uint32_t>>) {
          return fmt::format("[{}]", fmt::join(*field, ", "));
        } else {
          if (key.kind == ConfigKind::kFileMode) return fmt::format("\"{:04o}\"", *field);
          if (key.kind != ConfigKind::kBytes) return fmt::format("{}", *field);
          return TomlString(FormatByteSize(static_cast<uint64_t>(*field)));
        }
      },
      value);
}

std::string EffectiveConfigToml(const Config& config) {
  std::string out = TablesAsToml(config, /*comments=*/false);
  ConfigEntry entry;
  for (const Config::Gpu& gpu : config.gpus) {
    entry.gpu = gpu;
    out += "\n" + EntryAsToml("gpu", "", entry);
  }
  for (const Config::Tenant& tenant : config.tenants) {
    entry.tenant = tenant;
    out += "\n" + EntryAsToml("tenant", "", entry);
    for (const Config::TenantGpu& gpu : tenant.gpus) {
      entry.tenant_gpu = gpu;
      out += "\n" + EntryAsToml("tenant.gpu", "", entry);
    }
  }
  return out;
}

std::string SampleConfigToml() {
  const Config config;
  ConfigEntry entry;
  entry.tenant = {.name = "team-a",
                  .uids = {1000},
                  .limit_bytes = config.memory.pool_bytes,
                  .retention = config.retention.default_spec};
  entry.gpu.name = entry.tenant_gpu.name = "gpu0";
  entry.gpu.device = "cuda:0";
  entry.tenant_gpu.limit_bytes = entry.gpu.pool_bytes;
  std::string out =
      "# Configuration of kvasird: every key, at its default where no other value is reasoned.\n"
      "# Sizes are whole bytes, or text with a unit: \"512MiB\" (B, KiB, MiB, GiB, TiB).\n"
      "# A change needs a restart of the daemon where nothing else is said.\n"
      "# Check a changed file with: kvasird --config=FILE --check-config\n\n";
  out += TablesAsToml(config, /*comments=*/true);
  out +=
      "\n# A device whose memory the daemon owns a part of: one [[gpu]] table for each. Keys of "
      "it:\n" +
      KeysAsSample("gpu") +
      "\n# A tenant is who pays for memory; tenants never see each other's. One [[tenant]] table "
      "for\n"
      "# each. With none and no server.default_tenant nobody can connect. Keys of a tenant:\n" +
      KeysAsSample("tenant") +
      "\n# Of each device a tenant may have all, or what a [[tenant.gpu]] table behind its "
      "[[tenant]] "
      "says:\n" +
      KeysAsSample("tenant.gpu") + "\n";
  for (const std::string_view table : {"gpu", "tenant", "tenant.gpu"}) {
    out += (table == "gpu" ? "" : "#\n") + EntryAsToml(table, "# ", entry);
  }
  return out;
}

std::string ConfigReferenceMarkdown() {
  std::string out =
      "| key | unit | default | bounds | restart | meaning |\n|---|---|---|---|---|---|\n";
  for (const ConfigKey& key : ConfigSchema()) {
    out +=
        fmt::format("| `{}.{}` | {} | `{}` | {} | {} | {} |\n", key.table, key.name, key.unit,
                    Default(key), Bounds(key), key.needs_restart ? "yes" : "no", key.description);
  }
  return out;
}

}  // namespace kvasir
